"""Which of several fitted models do the data prefer?

    nesting.py     may two fits be compared at all, and how does the smaller lie within the larger
    likelihood.py  likelihoods of one kind: maximum likelihood for all, or restricted where the fixed parts are the same
    tests.py       F, likelihood ratio, score and bootstrap tests of one model within another
    compare.py     the table: one row per model, by its number of parameters

A fit is a pair (problem, fit), as everywhere below `fluent`; a `Candidate` gives it a name.
"""
