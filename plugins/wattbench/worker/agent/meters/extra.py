"""Names of the modules beside this one that come from other distributions.

Empty in the sources; the bundle that is shipped lists the modules of the entry points
``wattbench.agent_meters`` here, which lie beside this one there.
"""

MODULES: tuple[str, ...] = ()
