"""Makes dated card payments, some of them fraud: `python make_data.py [FOLDER] [--payments N]`.

Customers pay at terminals near them, at their own pace, sums and hours. Fraud comes in three ways,
each with a time: a terminal is compromised for four weeks, a card for two, and now and then a
stolen card is used once for a large sum. Features look back only, and a terminal's rate of fraud
knows a fraud only a week later, as it would be reported in life. The same arguments give the same
bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START = np.datetime64("2026-01-01T00:00:00", "us")
DAY_S = 86_400
DAYS = 180
REPORT_DELAY = 7  # days until a fraud is known
CHANNELS = np.array(["chip", "contactless", "online"])
NEW_ROWS = 200  # the last payments, without their answer, to ask the endpoint about


def make(payments: int, seed: int) -> pa.Table:
    """About `payments` payments of 180 days, in the order of their time."""
    rng = np.random.default_rng(seed)
    customers, terminals = max(50, payments // 120), max(50, payments // 80)
    home, shop = rng.uniform(0, 100, (customers, 2)), rng.uniform(0, 100, (terminals, 2))
    typical = rng.lognormal(3.3, 0.6, customers)  # a customer's typical sum
    pace = rng.gamma(2.0, 0.5, customers)

    customer = rng.choice(customers, payments, p=pace / pace.sum())
    second = _seconds(rng, payments)
    order = np.argsort(second, kind="stable")
    customer, second = customer[order], second[order]
    terminal = _near(rng, home, shop)[customer, rng.integers(0, 12, payments)]
    away = rng.random(payments) < 0.05
    terminal[away] = rng.integers(0, terminals, int(away.sum()))
    amount = typical[customer] * rng.lognormal(0, 0.5, payments)
    channel = rng.choice(3, payments, p=[0.35, 0.4, 0.25])
    treat = (channel == 0) & (rng.random(payments) < 0.12)  # now and then people buy something big
    amount[treat] *= rng.uniform(3, 8, int(treat.sum()))

    fraud = _compromised(rng, terminal, second, terminals, 28, 0.02 * DAYS / 28, 0.6)
    carded = _compromised(rng, customer, second, customers, 14, 0.02 * DAYS / 14, 0.5)
    stolen = rng.random(payments) < 0.003
    amount[carded] *= rng.uniform(3, 8, int(carded.sum()))
    amount[stolen] = rng.uniform(250, 900, int(stolen.sum()))
    channel[carded & (rng.random(payments) < 0.9)] = 2
    fraud |= carded | stolen

    distance = np.hypot(*(home[customer] - shop[terminal]).T)
    return _table(customer, terminal, second, amount.round(2), channel, distance, fraud)


def _seconds(rng: np.random.Generator, payments: int) -> Ints:
    """Seconds since START: all days alike, the hours of waking people."""
    hour = np.clip(rng.normal(14, 4.5, payments), 0, 23.999)
    day = rng.integers(0, DAYS, payments)
    return (day * DAY_S + hour * 3600).astype(np.int64)


def _near(rng: np.random.Generator, home: Floats, shop: Floats) -> Ints:
    """The 12 terminals nearest to each customer, in an order of each customer's own."""
    distance = np.linalg.norm(home[:, None, :] - shop[None, :, :], axis=2)
    nearest = np.argsort(distance, axis=1)[:, :12]
    return rng.permuted(nearest, axis=1)


def _compromised(
    rng: np.random.Generator, who: Ints, second: Ints, count: int, days: int, share: float,
    rate: float,
) -> NDArray[np.bool_]:
    """Payments made with a compromised card, or at such a terminal: `rate` of those in a span of
    `days` that befalls `share` of them."""
    first = np.where(rng.random(count) < share, rng.uniform(-days, DAYS, count), np.inf)
    since = second / DAY_S - first[who]
    return (since >= 0) & (since < days) & (rng.random(len(who)) < rate)


def _window(
    key: Ints, second: Ints, value: Floats, low_days: float, high_days: float = 0.0
) -> tuple[Floats, Floats]:
    """Count and sum of `value` over the earlier rows of the same key that are between `high_days`
    and `low_days` old."""
    span = (DAYS + 100) * DAY_S
    place = key * span + second
    order = np.argsort(place, kind="stable")
    sorted_, total = place[order], np.concatenate([[0.0], np.cumsum(value[order])])
    low = np.searchsorted(sorted_, np.maximum(place - int(low_days * DAY_S), key * span), "left")
    high = np.searchsorted(sorted_, np.maximum(place - int(high_days * DAY_S), key * span), "left")
    return (high - low).astype(np.float64), total[high] - total[low]


def _table(
    customer: Ints, terminal: Ints, second: Ints, amount: Floats, channel: Ints, distance: Floats,
    fraud: NDArray[np.bool_],
) -> pa.Table:
    day_count, _ = _window(customer, second, amount, 1)
    month_count, month_sum = _window(customer, second, amount, 30)
    mean = np.where(month_count > 0, month_sum / np.maximum(month_count, 1), np.nan)
    seen, frauds = _window(
        terminal, second, fraud.astype(np.float64), 28 + REPORT_DELAY, REPORT_DELAY
    )
    index = np.arange(len(customer))
    return pa.table({
        "transaction_id": pa.array(index),
        "tx_time": pa.array(START + second.astype("timedelta64[s]")),
        "customer_id": pa.array([f"C{i:05d}" for i in customer]),
        "terminal_id": pa.array([f"T{i:05d}" for i in terminal]),
        "channel": pa.array(CHANNELS[channel]),
        "amount": pa.array(amount),
        "distance_km": pa.array(distance.round(2)),
        "customer_payments_1d": pa.array(day_count.astype(np.int64)),
        "customer_payments_30d": pa.array(month_count.astype(np.int64)),
        "customer_mean_amount_30d": pa.array(mean.round(2), from_pandas=True),
        "amount_to_mean": pa.array((amount / mean).round(3), from_pandas=True),
        "terminal_payments_28d": pa.array(seen.astype(np.int64)),
        "terminal_fraud_rate_28d": pa.array((frauds / np.maximum(seen, 1)).round(4)),
        "is_fraud": pa.array(fraud),
    })


def write(folder: Path, payments: int, seed: int) -> None:
    """Write `payments/<month>.parquet`, and `new.jsonl`: the last payments, without the answer."""
    table = make(payments, seed)
    past, new = table.slice(0, len(table) - NEW_ROWS), table.slice(len(table) - NEW_ROWS)
    (folder / "payments").mkdir(parents=True, exist_ok=True)
    months = np.asarray(past["tx_time"]).astype("datetime64[M]")
    for month in np.unique(months):
        pq.write_table(past.filter(pa.array(months == month)), folder / "payments" /
                       f"{month}.parquet")
    with (folder / "new.jsonl").open("w", encoding="utf-8") as file:
        for row in new.drop_columns(["is_fraud"]).to_pylist():
            file.write(json.dumps(row | {"tx_time": row["tx_time"].isoformat()}) + "\n")
    rate = np.mean(np.asarray(past["is_fraud"]))
    print(f"{len(past):,} payments, {rate:.2%} fraud, in {folder / 'payments'}; "
          f"{len(new)} new ones in {folder / 'new.jsonl'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--payments", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.folder, options.payments, options.seed)


if __name__ == "__main__":
    main()
