import numpy as np
import pytest

from isoflop.fit.intervals import document_estimate


def test_equally_long_documents_give_the_error_of_a_mean() -> None:
    means = np.array([1.1, 0.7, 1.4, 0.9, 1.3])
    found = document_estimate(means * 40, [40] * 5)
    assert found is not None
    assert found.value == pytest.approx(means.mean())
    assert found.error == pytest.approx(means.std(ddof=1) / np.sqrt(5))
    assert found.degrees_of_freedom == pytest.approx(4)


def test_unequal_documents_by_leaving_each_out() -> None:
    means = np.array([1.1, 0.7, 1.4, 0.9, 1.3, 1.2])
    tokens = np.array([10, 300, 25, 7, 60, 110])
    found = document_estimate(means * tokens, tokens)
    assert found is not None
    whole = means @ tokens / tokens.sum()
    without = [
        np.delete(means, i) @ np.delete(tokens, i) / np.delete(tokens, i).sum() for i in range(6)
    ]
    assert found.value == pytest.approx(whole)
    assert found.error**2 == pytest.approx(5 / 6 * np.sum((np.array(without) - whole) ** 2))


def test_degrees_of_freedom_fall_where_few_documents_hold_the_text() -> None:
    found = document_estimate(np.arange(6.0), [20, 20, 20, 2, 2, 2])
    assert found is not None
    assert found.degrees_of_freedom == pytest.approx(66**2 / (3 * 400 + 3 * 4) - 1)
    one_long = document_estimate(np.arange(3.0), [1000, 1, 1])
    assert one_long is not None
    assert one_long.degrees_of_freedom == 1


def test_one_document_tells_nothing_of_others() -> None:
    assert document_estimate([3.0], [2]) is None


@pytest.mark.parametrize(("sums", "tokens"), [([1.0, 2.0], [3]), ([1.0, 2.0], [3, 0])])
def test_documents_need_a_total_and_tokens_each(sums: list[float], tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="positive number of tokens"):
        document_estimate(sums, tokens)
