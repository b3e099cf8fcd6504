"""What `xaibench plugin new` writes: a package that installs, passes its tests and does something before a line is changed.

`names` says what a package may be called, `render` makes its files in memory, `write` puts them on the disk: all or none.
The files are Jinja2 templates in `templates/`: those of a kind in a folder of its name, those of every kind beside them.
"""
