"""The fsync bench: what it costs to make a small write durable on a disk, by every method.

``rows`` is the table of what is measured, ``run`` measures it through the C core, ``results`` holds
figures, ``place`` what the disk is, ``verdict`` turns both into words; the ``report_…`` and
``plot_…`` modules write them down. The command is ``walengine bench fsync``; docs/GUIDE.md says how
to read it.
"""
