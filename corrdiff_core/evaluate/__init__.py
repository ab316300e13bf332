"""How good a checkpoint is on weather that it has not seen, beside what it must beat and what nobody can beat.

`evaluate.evaluate` samples and scores; `scores.Scores` is what comes out, time by time, and knows its uncertainty;
`report` and `panel` show it. Only `evaluate` and `forecasts` need torch.
"""
