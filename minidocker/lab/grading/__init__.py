"""`./lab grade`: a class's exercises, each submission in a container of its own, judged from outside.

submissions.py  what was handed in: regular files only, with limits
box.py          the container of one submission       inside.py  the program in it
judge.py        the hidden cases, outside             wire.py    what both sides say to each other
scores.py       nbgrader: gradebook, feedback         report.py  table, CSV, picture of the class
main.py         all of it, several at once
"""
