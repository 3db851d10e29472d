"""Workers that a cluster starts: what is asked of it, and who watches over them."""
