"""Tasks for language models: questions with accepted answers, typed verdicts on replies, paired comparisons.

    from squadron.evaluate.tasks.compare import compare_paired, holm
    from squadron.evaluate.tasks.items import Item
    from squadron.evaluate.tasks.scorers import score

    item = Item("1", "How many eggs are left?", ("1234",), "number")
    score("There are {1,234} left.", item)       # Verdict(outcome="right", value=1.0, read="1,234")
    score("I cannot tell.", item)                # Verdict(outcome="unparsed", value=None, read=None)
    compare_paired([1.0, 0.0, 1.0], [0.0, 0.0, 1.0])

A reply that cannot be read is counted by itself: it is never a zero and never a pass.
"""
