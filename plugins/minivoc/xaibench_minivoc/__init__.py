"""minivoc: freely licensed speech with time-aligned vocoded twins, and the vocoders that made three of them.

The code is MIT. The audio in `audio/` is not: each file has its own licence, see `SOURCES.md` and `LICENSES/` here.
"""
