"""Flows that ship with dflow, to read and to run.

`three_steps` is the smallest one that says something, `digits` a model of how a real one is written:
``dflow demo`` runs it.
"""
