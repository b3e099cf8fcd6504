"""The static site: pages that open from a folder, without a server and without a request to anybody.

`shell` renders a page; `build` writes the site of some runs; each other file is one kind of page or of file.
"""
