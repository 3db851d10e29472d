"""From a file to rows, whatever its format."""
