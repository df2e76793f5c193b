"""The rules of one file on its way over one link, without I/O: one module a direction."""
