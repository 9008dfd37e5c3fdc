"""Points in MySQL: an order over three databases. README.md goes through it, file by file."""
