"""The shared cache: results of steps where other machines find them, too.

Its layout is described in ``docs/store-format.md``, its use in ``docs/shared-cache.md``.
"""
