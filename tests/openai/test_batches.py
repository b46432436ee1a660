"""Files and batches, driven with OpenAI's official Python client as a user's program would.

As in test_images.py, DARKROOM_URL is the farm's address and DARKROOM_KEY a key with the scope
`submit`.
"""

import base64
import json
import time
import unittest
import urllib.error
import urllib.request
import uuid

import openai
from test_images import KEY, MAGIC, PICTURE, SLOW, URL, client, extent, fetch, png, unique

GENERATIONS = "/v1/images/generations"
ENDED = ("completed", "failed", "expired", "cancelled")


def line(custom_id, url=GENERATIONS, **body):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def upload(lines, **options):
    data = "\n".join(lines).encode()
    return client().files.create(file=("requests.jsonl", data), purpose="batch", **options)


def begin(lines, endpoint=GENERATIONS, **options):
    file = upload(lines)
    options.setdefault("completion_window", "24h")
    return client().batches.create(input_file_id=file.id, endpoint=endpoint, **options)


def wait(batch, until=lambda batch: batch.status in ENDED, seconds=120):
    """The batch when it is as far as that."""
    end = time.monotonic() + seconds
    while True:
        batch = client().batches.retrieve(batch.id)
        if until(batch):
            return batch
        if time.monotonic() > end:
            raise AssertionError(f"the batch is still {batch.status}: {batch}")
        time.sleep(0.2)


def results(file_id):
    """The lines of a file of results, by the names of their requests."""
    text = client().files.content(file_id).text
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["custom_id"]: line for line in lines}


def sent(data):
    """The name of a picture that is uploaded for edits."""
    request = urllib.request.Request(
        f"{URL}/api/v1/inputs",
        data=data,
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "image/png"},
    )
    return json.load(urllib.request.urlopen(request))["sha256"]


class Files(unittest.TestCase):
    def test_a_file_is_kept_listed_read_and_deleted(self):
        text = line("a", prompt=unique())
        file = upload([text])
        self.assertEqual((file.object, file.purpose, file.filename), ("file", "batch", "requests.jsonl"))
        self.assertEqual(file.bytes, len(text))
        self.assertEqual(client().files.retrieve(file.id).id, file.id)
        self.assertEqual(client().files.content(file.id).read(), text.encode())
        self.assertIn(file.id, [one.id for one in client().files.list(purpose="batch")])
        self.assertNotIn(file.id, [one.id for one in client().files.list(purpose="batch_output")])
        self.assertTrue(client().files.delete(file.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            client().files.retrieve(file.id)
        with self.assertRaises(openai.NotFoundError):
            client().files.content(file.id)

    def test_listings_go_on_where_the_last_page_ended(self):
        files = [upload([line(str(number), prompt="x")]).id for number in range(5)]
        page = client().files.list(limit=2)
        self.assertEqual([one.id for one in page.data], files[:-3:-1])
        self.assertTrue(page.has_more)
        found = [one.id for one in client().files.list(limit=2)]
        self.assertEqual(found[:5], files[::-1])
        self.assertEqual(len(found), len(set(found)))
        oldest = [one.id for one in client().files.list(order="asc")]
        self.assertEqual(oldest, found[::-1])

    def test_a_file_can_be_read_in_parts(self):
        file = upload([line("a", prompt="a fox")])
        request = urllib.request.Request(
            f"{URL}/v1/files/{file.id}/content",
            headers={"Authorization": f"Bearer {KEY}", "Range": "bytes=1-5"},
        )
        with urllib.request.urlopen(request) as answer:
            self.assertEqual((answer.status, answer.read()), (206, line("a", prompt="a fox").encode()[1:6]))

    def test_what_the_farm_has_no_use_for_is_refused(self):
        for options, said in [
            ({"purpose": "fine-tune"}, 'purpose is "fine-tune"; accepted: batch'),
            ({"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 10}}, "seconds is 10"),
        ]:
            with self.assertRaises(openai.BadRequestError) as refused:
                client().files.create(file=("a.jsonl", b"{}"), **options)
            self.assertIn(said, refused.exception.message)
        file = client().files.create(
            file=("a.jsonl", b"{}"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        self.assertAlmostEqual(file.expires_at - file.created_at, 3600, delta=1)


class Batches(unittest.TestCase):
    def test_a_batch_becomes_pictures_behind_links(self):
        prompt = unique()
        batch = begin(
            [
                line("one", prompt=prompt, seed=5, size="256x256"),
                line("two", prompt=f"{prompt} again", n=2, size="64x64", output_format="jpeg"),
                line("none", prompt=prompt, n=0),
                line("gone", prompt=prompt, model="no-such-model"),
            ],
            metadata={"project": "tests"},
        )
        self.assertEqual((batch.object, batch.status), ("batch", "validating"))
        self.assertEqual(batch.metadata, {"project": "tests"})
        self.assertEqual(batch.expires_at - batch.created_at, 24 * 3600)
        batch = wait(batch)
        self.assertEqual(batch.status, "completed", batch)
        counts = batch.request_counts
        self.assertEqual((counts.total, counts.completed, counts.failed), (4, 2, 2))
        for at in (batch.in_progress_at, batch.finalizing_at, batch.completed_at):
            self.assertGreaterEqual(at, batch.created_at)

        done = results(batch.output_file_id)
        self.assertEqual(set(done), {"one", "two"})
        one, two = (done[name]["response"] for name in ("one", "two"))
        self.assertEqual((one["status_code"], two["status_code"]), (200, 200))
        self.assertEqual((one["body"]["size"], two["body"]["size"]), ("256x256", "64x64"))
        self.assertEqual(one["body"]["data"][0]["seed"], 5)
        self.assertEqual(len(two["body"]["data"]), 2)
        picture = urllib.request.urlopen(one["body"]["data"][0]["url"]).read()
        self.assertEqual(extent(picture), (256, 256))
        for two in two["body"]["data"]:
            self.assertTrue(urllib.request.urlopen(two["url"]).read().startswith(MAGIC["jpeg"]))

        failed = results(batch.error_file_id)
        self.assertEqual(set(failed), {"none", "gone"})
        none, gone = (failed[name]["response"] for name in ("none", "gone"))
        self.assertEqual((none["status_code"], none["body"]["error"]["param"]), (400, "n"))
        self.assertEqual((gone["status_code"], gone["body"]["error"]["code"]), (404, "model_not_found"))
        self.assertRegex(gone["body"]["error"]["message"], r"no-such-model.*; accepted: \S")

        self.assertIn(batch.id, [one.id for one in client().batches.list(limit=5)])
        files = client().files.list(purpose="batch_output")
        self.assertIn(batch.output_file_id, [one.id for one in files])

    def test_pictures_come_in_the_results_if_that_is_asked_for(self):
        batch = wait(begin([line("a", prompt=unique(), size="64x64", response_format="b64_json")]))
        body = results(batch.output_file_id)["a"]["response"]["body"]
        picture = base64.b64decode(body["data"][0]["b64_json"], validate=True)
        self.assertEqual(extent(picture), (64, 64))
        self.assertIsNone(batch.error_file_id)

    def test_edits_start_from_uploads_and_share_no_job_with_other_starts(self):
        picture = sent(PICTURE)
        edits = "/v1/images/edits"
        batch = wait(
            begin(
                [
                    line("plain", edits, prompt=unique(), image=picture, size="64x64"),
                    line("none", edits, prompt=unique()),
                    line("path", edits, prompt=unique(), image="/etc/passwd"),
                ],
                endpoint=edits,
            )
        )
        self.assertEqual(batch.status, "completed", batch)
        self.assertEqual(set(results(batch.output_file_id)), {"plain"})
        failed = results(batch.error_file_id)
        self.assertEqual({one["response"]["body"]["error"]["param"] for one in failed.values()}, {"image"})

    def test_a_request_that_the_farm_refuses_is_refused_alone(self):
        # Only the farm knows that no such picture was uploaded, and only when the job is submitted.
        picture, unknown = sent(PICTURE), uuid.uuid4().hex * 2
        edits = "/v1/images/edits"
        batch = wait(
            begin(
                [
                    line("first", edits, prompt=unique(), image=picture, size="64x64"),
                    "",
                    line("many", edits, prompt=unique(), image=picture, n=11),
                    line("unknown", edits, prompt=unique(), image=unknown, size="64x64"),
                    line("last", edits, prompt=unique(), image=picture, size="64x64", n=2),
                    line("unknown too", edits, prompt=unique(), image=unknown, size="64x64", n=3),
                ],
                endpoint=edits,
            )
        )
        self.assertEqual(batch.status, "completed", batch)
        counts = batch.request_counts
        self.assertEqual((counts.total, counts.completed, counts.failed), (5, 2, 3))
        done = results(batch.output_file_id)
        pictures = {name: len(one["response"]["body"]["data"]) for name, one in done.items()}
        self.assertEqual(pictures, {"first": 1, "last": 2})
        failed = results(batch.error_file_id)
        self.assertEqual(list(failed), ["many", "unknown", "unknown too"])
        self.assertEqual(failed["many"]["response"]["body"]["error"]["param"], "n")
        for name in ("unknown", "unknown too"):
            error = failed[name]["response"]["body"]["error"]
            self.assertEqual(error["param"], "image", error)
            self.assertIn(unknown, error["message"])
            self.assertNotIn("line ", error["message"])

    def test_a_job_that_the_farm_refuses_spoils_no_other_job_of_the_batch(self):
        picture, unknown = sent(PICTURE), uuid.uuid4().hex * 2
        white = sent(png(96, 96, lambda x, y: (255, 255, 255), alpha=False))
        edits = "/v1/images/edits"
        batch = wait(
            begin(
                [
                    line("good", edits, prompt=unique(), image=picture, size="64x64"),
                    line("bad", edits, prompt=unique(), image=unknown, mask=white, size="64x64"),
                ],
                endpoint=edits,
            )
        )
        self.assertEqual(batch.status, "completed", batch)
        self.assertEqual(batch.request_counts.completed, 1)
        self.assertEqual(set(results(batch.output_file_id)), {"good"})
        refused = results(batch.error_file_id)["bad"]["response"]
        self.assertEqual(refused["body"]["error"]["param"], "image", refused)

    def test_a_batch_whose_requests_are_all_refused_says_why_for_each(self):
        one, other = uuid.uuid4().hex * 2, uuid.uuid4().hex * 2
        edits = "/v1/images/edits"
        lines = [line(f"r{number}", edits, prompt=unique(), image=one, size="64x64") for number in range(150)]
        lines.append(line("other", edits, prompt=unique(), image=other, size="64x64"))
        lines.append(line("many", edits, prompt=unique(), image=one, n=11))
        batch = wait(begin(lines, endpoint=edits))
        self.assertEqual(batch.status, "completed", batch)
        self.assertIsNone(batch.output_file_id)
        counts = batch.request_counts
        self.assertEqual((counts.total, counts.completed, counts.failed), (152, 0, 152))
        failed = results(batch.error_file_id)
        self.assertEqual(len(failed), 152)
        for name, one_of_them in failed.items():
            error = one_of_them["response"]["body"]["error"]
            self.assertEqual(error["param"], "n" if name == "many" else "image", error)
            self.assertIn({"many": "n is 11", "other": other}.get(name, one), error["message"])

    def test_a_repeated_request_finds_the_first_ones_batch(self):
        file = upload([line("a", prompt=unique(), size="64x64")])
        whole = {"input_file_id": file.id, "endpoint": GENERATIONS, "completion_window": "24h"}
        first = client().batches.create(**whole)
        again = {"x-stainless-retry-count": "1"}
        self.assertEqual(client().batches.create(**whole, extra_headers=again).id, first.id)
        other = client().batches.create(**whole, metadata={"a": "b"}, extra_headers=again)
        self.assertNotEqual(other.id, first.id)
        self.assertNotEqual(client().batches.create(**whole).id, first.id, "asked for on purpose")

    def test_a_file_that_is_no_batch_fails_with_its_lines(self):
        for lines, said in [
            ([line("a", prompt="x"), "{"], "line 2: the line is not a JSON object"),
            ([line("a", prompt="x"), line("a", prompt="y")], 'line 2: custom_id is "a"'),
            ([line("a", "/v1/embeddings", prompt="x")], 'line 1: url is "/v1/embeddings"'),
            (["", " "], "the file has no request"),
        ]:
            batch = wait(begin(lines))
            self.assertEqual(batch.status, "failed", batch)
            self.assertIn(said, batch.errors.data[0].message)
            self.assertIsNone(batch.output_file_id)

    def test_a_prompt_that_is_too_long_is_refused_alone(self):
        batch = wait(begin([line("a", prompt=unique(), size="64x64"), line("b", prompt="y" * 5000)]))
        self.assertEqual(batch.status, "completed", batch)
        self.assertEqual(set(results(batch.output_file_id)), {"a"})
        refused = results(batch.error_file_id)["b"]["response"]
        self.assertEqual((refused["status_code"], refused["body"]["error"]["param"]), (400, "prompt"))
        self.assertIn("5000 characters", refused["body"]["error"]["message"])

    def test_a_batch_is_cancelled_with_what_is_done(self):
        lines = [line(str(number), prompt=unique(), n=10) for number in range(200)]
        batch = begin(lines)
        wait(batch, lambda batch: batch.status != "validating")
        client().batches.cancel(batch.id)
        batch = wait(batch)
        self.assertEqual(batch.status, "cancelled", batch)
        self.assertIsNotNone(batch.cancelling_at)
        self.assertEqual(batch.request_counts.total, 200)
        self.assertGreater(batch.request_counts.failed, 0)
        cut = results(batch.error_file_id)
        self.assertEqual({one["error"]["code"] for one in cut.values()}, {"batch_cancelled"})
        done = results(batch.output_file_id) if batch.output_file_id else {}
        self.assertEqual(len(cut) + len(done), 200)
        self.assertEqual(client().batches.cancel(batch.id).status, "cancelled", "twice is once")
        for job in batch.model_extra["jobs"]:
            state = json.loads(fetch(f"/api/v1/jobs/{job}"))["state"]
            self.assertEqual(state, "cancelled")

    def test_wrong_requests_say_what_is_accepted(self):
        file = upload([line("a", prompt="x")])
        for options, param in [
            ({"input_file_id": "file-0"}, "input_file_id"),
            ({"input_file_id": f"file-{uuid.uuid4().hex}"}, "input_file_id"),
            ({"endpoint": "/v1/embeddings"}, "endpoint"),
            ({"completion_window": "1w"}, "completion_window"),
            ({"metadata": {"a": "x" * 513}}, "metadata"),
        ]:
            whole = {"input_file_id": file.id, "endpoint": GENERATIONS, "completion_window": "24h"}
            with self.assertRaises(openai.APIStatusError) as refused:
                client().batches.create(**{**whole, **options})
            self.assertEqual(refused.exception.param, param, refused.exception)
        with self.assertRaises(openai.NotFoundError):
            client().batches.retrieve("batch_0")
        done = wait(client().batches.create(**whole))
        with self.assertRaises(openai.BadRequestError) as refused:
            client().batches.create(**{**whole, "input_file_id": done.output_file_id})
        self.assertIn("accepted: one with purpose batch", refused.exception.message)
        with self.assertRaises(openai.ConflictError) as refused:
            client().batches.cancel(done.id)
        self.assertIn("completed", refused.exception.message)

    def test_a_file_stays_while_its_batch_is_open(self):
        lines = [line(str(number), prompt=unique(), n=10) for number in range(100)]
        batch = begin(lines)
        with self.assertRaises(openai.ConflictError):
            client().files.delete(batch.input_file_id)
        client().batches.cancel(batch.id)
        wait(batch)
        self.assertTrue(client().files.delete(batch.input_file_id).deleted)


@unittest.skipUnless(SLOW, "it takes minutes; DARKROOM_SLOW=1 runs it")
class Large(unittest.TestCase):
    def test_a_batch_of_fifty_thousand_requests_has_fifty_thousand_results(self):
        prompt = unique()
        lines = [line(f"r{number}", prompt=f"{prompt} {number}", size="64x64", seed=number) for number in range(50_000)]
        began = time.monotonic()
        batch = wait(begin(lines), seconds=3600)
        print(f"{len(lines)} requests in {time.monotonic() - began:.0f} s", flush=True)
        self.assertEqual(batch.status, "completed", batch)
        counts = batch.request_counts
        self.assertEqual((counts.total, counts.completed, counts.failed), (50_000, 50_000, 0))
        self.assertIsNone(batch.error_file_id)
        self.assertEqual(len(batch.model_extra["jobs"]), 1)
        text = client().files.content(batch.output_file_id).text
        done = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([line["custom_id"] for line in done], [f"r{number}" for number in range(50_000)])
        self.assertEqual([line["response"]["body"]["data"][0]["seed"] for line in done], list(range(50_000)))
        for at in (0, 24_999, 49_999):
            picture = urllib.request.urlopen(done[at]["response"]["body"]["data"][0]["url"]).read()
            self.assertEqual(extent(picture), (64, 64))

    def test_a_file_of_more_requests_fails_as_a_whole(self):
        lines = [line(f"r{number}", prompt="x", size="64x64") for number in range(50_001)]
        batch = wait(begin(lines))
        self.assertEqual(batch.status, "failed", batch)
        self.assertEqual(batch.errors.data[0].code, "too_many_requests")


if __name__ == "__main__":
    unittest.main()
