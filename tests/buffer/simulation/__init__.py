"""A whole queue in virtual time: every store operation and timer is an event drawn from a seed.

world.py      virtual time: one heap of events for all processes, and their freezes and deaths
loop.py       the asyncio event loop of one process, driven by that heap
objects.py    the object store that they share, with everything that ever happened in it
client.py     one process's way to it: requests that take time, get lost or come late
weather.py    latencies, faults and outages
decoder.py    manifests and batches read from the format tables, without walengine
database.py   the transactional database of the sink, its backups too
oracle.py     the invariants B0 to B6
mind.py       what one process was told, by which it is judged whether it may do what it does
plan.py       what a seed draws
producing.py  the programs that run the real AsyncProducer
consuming.py  the programs that run the real AsyncConsumer, with a sink that is exactly once
taking.py     the three ways to take batches from it
collecting.py collection by hand
nemesis.py    what happens to them: crashes, freezes, outages, lost manifests, restored backups
run.py        one seed from its plan to the oracle's verdict
mutants.py    the deliberate bugs that the oracle must see
"""
