"""A study while it is trained, as a page that this machine serves: its report, and what runs now.

`now` makes the part that is live, `server` tells it and the report to a browser.
"""
