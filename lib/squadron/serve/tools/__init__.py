"""One tool in place of many: search over the tools of other Model Context Protocol servers."""
