"""Does it help? Arms × seeds, pre-trained and judged alike, and what they say with error bars.

Here live the arms, the images and the regime that all runs of a grid share, the order of the runs,
and the tables. Stages are done by ``flows`` as those of the pipeline are, and statistics are those
of ``care.show.seeds``: neither lives here. Only ``flow`` imports Prefect.

A grid is a function of its settings: stopped, killed, grown, or done on several machines, it ends
with the same tables, and no finished run is done again (``tests/flows/test_reproduce.py``).
"""
