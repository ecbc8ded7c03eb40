"""Comparisons: methods × problems × seeds, run as rows, with intervals and paired differences, shown in the report.

    from squadron.evaluate.benchmark import Cell, run_benchmark
    from squadron.evaluate.panels import difference_table, estimate_bars
    from squadron.evaluate.scores import Problem

    def score(cell: Cell, folder: Folder) -> list[Metrics]:             # on a worker; one method on one problem
        (method,), (problem,) = cell.methods, cell.problems
        return [{"right": answer(method, folder, problem.data["question"], cell.seed) == problem.data["answer"]}]

    problems = [Problem(row["id"], group=(row["level"],), data=row) for row in rows]
    scores = run_benchmark(stage, ["ours", "theirs"], problems, score, seeds=range(3), folder=stage.run.folder)
    found = {method: scores.estimate(method, "right", share=True) for method in scores.methods}
    stage.show(estimate_bars("Right answers", "share", found))
    points = {"right answers, points": ("right", "+.1f", 100.0)}
    stage.show(difference_table("Ours against the others", scores, "ours", points, ("problems", "right")))

A cell that fails is a failed row: its scores are missing, counted, left out of pairs, and tried again by the next run.
`scores.groups()` has the problems of each group by themselves. Intervals come from a seeded bootstrap over problems.
"""
