"""Rows to tables: the board is a pure function of result files. `table` computes, `verdict` says, `render` prints."""
