"""How minivoc is made: packages -> clips -> vocoders -> one common chain -> folders. Run as `python -m rebuild.NAME`."""
