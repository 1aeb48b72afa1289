"""Private and undocumented names of other libraries that ftlab needs: one module a library, and no use elsewhere.

Each name has a comment that says why no public one does the same, and a test in tests/internals that fails with one
sentence when a new release of the library has changed it. A library without a module here is used by its documented
names alone. The modules import their library inside of functions, so importing them costs nothing (`torch_dispatch`
excepted: base classes are needed at import).
"""
