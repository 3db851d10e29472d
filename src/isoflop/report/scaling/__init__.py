"""The report of a scaling study: loss against compute at named sizes, by position."""
