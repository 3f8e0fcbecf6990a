"""Many runs: the same images across runs, hosts and nights.

``places`` finds runs, ``read`` reads them, ``facts`` finds what changed between them, ``levels``
condenses a run to one level an image and host, ``course`` finds changes of level in a series,
``nights`` and ``pairs`` compare many and few runs, ``alerts`` says what is wrong, ``compare`` joins
all of it and ``write`` puts it into files.
"""
