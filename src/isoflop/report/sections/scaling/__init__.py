"""Parts of the page of a scaling study: loss against compute, by ranges of positions."""
