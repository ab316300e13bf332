"""What the archive was worth, slot by slot as truth arrives, and whether it still is.

`work` finds the slots that are to be looked at and measures them (`measures`, `coarse`), beside `truth` where that is
there; `store` keeps a row for each; `windows` and `verdict` say what they come to; `panel` shows it.
"""
