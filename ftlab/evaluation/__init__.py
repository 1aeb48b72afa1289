"""How good is it, how sure are we, and what did it have to beat?"""
