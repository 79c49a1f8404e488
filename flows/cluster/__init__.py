"""Stages on a Ray cluster: evaluations a GPU each, and pre-training as a group over the nodes.

Here live what a cluster has room for, the actor that does a stage on a node, and how those are
followed from where the command was given. What a stage does is in ``flows.works``, how its process
is forked and watched in ``flows.supervise``, which each node uses: neither lives here. Ray holds
no state of ours: what is finished is in records, and what is begun in run directories, so that a
node or the driver may be lost at any moment (``tests/flows/test_ray_cluster.py``). Ray is imported
within functions alone, for who uses it.
"""
