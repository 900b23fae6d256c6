"""`tallyformer bench`: how fast a model's folder or a server answers, and how many at once.

settings.py      what is measured
arrivals.py      when requests are due; words.py: what they say
timeline.py      one request: when it was due, sent, answered
loads.py         closed loops and open loops of requests
target.py        what is asked; model_target.py: a folder, server_target.py: a URL
summary.py       percentiles, goodput
measuring.py     all cells of a target, one after another; running.py: all targets
results.py       what is kept; folder.py, page.py, tables.py, plots.py: how it is shown
"""
