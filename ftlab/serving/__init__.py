"""From a folder to the engine that serves it: export, certificate, and the engines themselves."""
