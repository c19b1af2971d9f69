"""Which parts told which, as a graph of one text: experts are nodes, and every edge is checked."""
