"""A registry under load while its daemons and its clients are killed: nothing acknowledged is lost.

content.py   what is in a version, by its token alone
book.py      what one client asked for and was told, written down outside of the store
client.py    the program of one client
soak.py      daemons and clients, and their end; what is left of it all at the end
"""
