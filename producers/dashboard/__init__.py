"""The page: the figures of the command line in a browser, live.

The one idea: it asks what the commands ask, once a second at most however many pages are open, and shows no prompt, no
answer and no key. `server.serve` runs it; `figures` looks, `feed` shares what was seen, `access` says who may do what.
"""
