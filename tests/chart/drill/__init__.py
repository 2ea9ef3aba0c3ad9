"""A drill of the chart on one machine: its pods, as processes, under what KEDA, a ReplicaSet and a
kubelet do, with a job, faults, and a picture of it. ``python -m tests.chart.drill --help``.
"""
