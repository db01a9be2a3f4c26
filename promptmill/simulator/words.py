# ruff: noqa: RUF001  the Chinese sentences have Chinese punctuation
"""What the simulated answers are made of: sentences in English and Chinese, some with an emoji.

The one idea: a long text is shuffled together once per seed, and an answer is a slice of it that begins at a
sentence. A slice costs a microsecond, whatever its length.
"""

import random

_ENGLISH = """\
Let me work through this step by step.
First, it helps to restate what is being asked.
The numbers given are small enough to check by hand.
Adding the two parts gives the subtotal for the day.
We then multiply by the price of a single item.
That leaves a remainder, which is carried to the next step.
So the total comes to a little more than expected.
This matches the figure from the other direction.
A second look at the wording confirms the reading.
There are two cases to consider here.
In the first case the answer follows at once.
In the second case one more step is needed.
It is worth noting that the order does not matter.
The function returns the list without changing its input.
An empty input is handled before the loop begins.
Each element is visited once, so the cost is linear.
A short example makes the rule easier to see.
The customer would most likely prefer the shorter form.
On balance the evidence points the same way.
However, the sample is small and should be read with care.
The review is positive overall, with one reservation about delivery.
The main theme is patience, shown through small daily acts.
Both sources agree on the date, but not on the place.
The meeting was moved to Thursday at the request of the team.
Please keep the receipt in case the parcel has to be returned.
The water was cold, the sky was clear, and nobody spoke for a while.
He counted the eggs twice and wrote the number on the door.
She kept three for breakfast and sold the rest at the market.
The train leaves at nine, which gives us forty minutes.
If the rate stays the same, the work is done by noon.
Half of the bolts are blue and the others are white.
The remaining distance is covered at the lower speed.
Rounding to the nearest whole number does not change the result.
This is a common mistake, and an easy one to make.
To summarise, three of the five conditions hold.
I would suggest starting with the simplest of the options.
Here is the short version 🙂
Good news: the check passes ✅
A small caveat applies 🔎 and is explained below.
The garden looked its best in early June 🌿
That settles the question.
Hence the answer."""

_CHINESE = """\
我们一步一步来看这个问题。
首先把题目中的条件整理清楚。
根据题意，两部分相加就是当天的总数。
然后再乘以每一件的单价。
剩下的部分留到下一步计算。
因此总数比预想的略多一些。
换一个角度来算，结果是一样的。
这里需要分两种情况来讨论。
第一种情况可以直接得出答案。
第二种情况还需要多走一步。
注意，顺序并不影响最后的结果。
每天早上她吃掉三个，其余的拿到市场上出售。
火车九点出发，所以我们还有四十分钟。
如果速度保持不变，中午之前就能完成。
一半的螺栓是蓝色的，另一半是白色的。
四舍五入之后，结果没有变化。
这是一个常见的错误，也很容易避免。
总的来说，五个条件中有三个成立。
下面用一个简短的例子来说明。
检查通过 ✅
这样就得到了最后的答案。"""

_LENGTH = 60_000


class Prose:
    """Endless text of one language; the same position gives the same words."""

    def __init__(self, sentences: str, separator: str, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311  filler, not a secret
        lines = sentences.splitlines()
        chosen: list[str] = []
        length = 0
        while length < _LENGTH:
            rng.shuffle(lines)
            chosen.extend(lines)
            length += sum(map(len, lines))
        self._text = separator.join(chosen) + separator
        self._starts = [0]
        for line in chosen[:-1]:
            self._starts.append(self._starts[-1] + len(line) + len(separator))
        self._separator = separator

    def take(self, position: float, characters: int) -> str:
        """About `characters` of text, from the sentence at `position` (0 to 1) on, never cut inside a word."""
        begin = self._starts[int(position * len(self._starts))]
        text = self._text
        while len(text) < begin + characters + 1:
            text += self._text
        end = begin + max(1, characters)
        if self._separator:
            space = text.find(" ", end)
            end = space if 0 <= space < end + 40 else end
        return text[begin:end].rstrip()


def english(seed: int) -> Prose:
    """English prose."""
    return Prose(_ENGLISH, " ", seed)


def chinese(seed: int) -> Prose:
    """Chinese prose."""
    return Prose(_CHINESE, "", seed)
