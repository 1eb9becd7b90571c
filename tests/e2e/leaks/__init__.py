"""The leak scan: a mixed load with every failure path taken, then a search for its values in all that was kept of it.

``canaries`` makes values and knows their encodings; ``places`` reads what is searched; ``planting`` puts a canary into
each place, so that a search that cannot find anything is noticed; ``allowed`` lists where values may be, with reasons;
``scan`` searches and reports; ``load`` and ``entries*`` are the load: a new failure path is one more entry.
"""
