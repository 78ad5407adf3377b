"""TwoNN and nearest neighbors, slowly and plainly, from Facco et al. 2017 (Scientific Reports 7:12140)."""

import math


def neighbors(points, count):
    """[(distances, indices)] of the count nearest others of each point."""
    found = []
    for i, point in enumerate(points):
        distances = []
        for j, other in enumerate(points):
            if i != j:
                distances.append((math.sqrt(sum((a - b) ** 2 for a, b in zip(point, other, strict=True))), j))
        distances.sort()
        found.append(([d for d, _ in distances[:count]], [j for _, j in distances[:count]]))
    return found


def two_nn(points, fraction):
    """Steps 1 to 5 of the paper's algorithm: ratios, sorted, empirical distribution, line through the origin."""
    ratios = sorted(distances[1] / distances[0] for distances, _ in neighbors(points, 2))
    n = len(ratios)
    top = bottom = 0.0
    for i, ratio in enumerate(ratios, start=1):
        if i <= fraction * n + 1e-9 and i < n:
            x, y = math.log(ratio), -math.log(1 - i / n)
            top += x * y
            bottom += x * x
    return top / bottom
