"""A finished run in one file that others can check: `submit` packs it, `verify` computes a random sample of it again.

A pack is data of strangers. Reading one runs nothing of it, writes nothing, and is bounded in size (`pack`); what it says is
held against the installed code, weights and data, and against cells computed again (`verify`).
"""
