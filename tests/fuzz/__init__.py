"""Bytes of any kind for everything that decodes what others wrote.

targets.py       what is given bytes, and what must be true of the answer
seeds.py         bytes to begin with: good ones, of each kind
one.py           the program that fuzzes one target (atheris: coverage tells it which bytes are new)
__main__.py      all targets, for so many seconds each: `make fuzz SECONDS=n`
found/TARGET/    bytes that were once answered wrongly; every run of the tests gives them again
"""
