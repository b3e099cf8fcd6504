"""The harness: plan the cells, run the missing ones, never lose one. Only here do side effects live."""
