"""Drives a farm with OpenAI's official Python client, as a user's program would.

DARKROOM_URL is the farm's address (http://127.0.0.1:7878) and DARKROOM_KEY a key with the scope
`submit`; on an open farm any text does. The farm serves the demo cascade with the fake renderer.
DARKROOM_SLOW=1 runs the class `Patience` too: start the farm with --fake-step-ms 3000 for it, and run
it alone, as `make test-slow` does.
"""

import base64
import json
import os
import socket
import struct
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib

import openai
from openai import OpenAI

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:7878").rstrip("/")
KEY = os.environ.get("DARKROOM_KEY", "open")
SLOW = os.environ.get("DARKROOM_SLOW") == "1"

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


def client(url=URL, **options):
    return OpenAI(base_url=f"{url}/v1", api_key=options.pop("api_key", KEY), **options)


def fetch(path, base=URL, key=True):
    headers = {"Authorization": f"Bearer {KEY}"} if key and KEY != "open" else {}
    with urllib.request.urlopen(urllib.request.Request(base + path, headers=headers)) as answer:
        return answer.read()


def unique(text="a red circle"):
    """A prompt that no other test uses."""
    return f"{text} {uuid.uuid4().hex[:12]}"


def jobs(prompt):
    """The jobs of a prompt."""
    return json.loads(fetch(f"/api/v1/jobs?text={urllib.parse.quote(prompt)}"))["jobs"]


def png(width, height, pixel, alpha=True):
    """A PNG whose pixels `pixel(x, y)` gives."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    rows = b"".join(
        b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if alpha else 2, 0, 0, 0)
    return (
        MAGIC["png"]
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def extent(picture):
    """Width and height of a PNG."""
    return struct.unpack(">II", picture[16:24])


def decoded(image):
    return base64.b64decode(image.b64_json, validate=True)


PICTURE = png(96, 96, lambda x, y: (x * 2, y * 2, 90), alpha=False)
MASK = png(96, 96, lambda x, y: (0, 0, 0, 0 if x < 48 else 255))


class Cut:
    """A proxy that cuts some connections: `cuts` says after how many bytes of each one's answer.
    None: never; a negative number: when the answer has come to its end, of which nothing is sent."""

    def __init__(self, cuts):
        self.cuts = list(cuts)
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            cut = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self.carry, args=(near, cut), daemon=True).start()

    def carry(self, near, cut):
        address = urllib.parse.urlsplit(URL)
        far = socket.create_connection((address.hostname, address.port))

        def there():
            while data := near.recv(65536):
                self.requests.append(data)
                far.sendall(data)

        def back():
            passed, last = 0, b""
            while data := far.recv(65536):
                if cut is None:
                    near.sendall(data)
                    continue
                if cut < 0:
                    last = (last + data)[-5:]
                    if last == b"0\r\n\r\n":
                        return
                    continue
                near.sendall(data[: cut - passed])
                passed += len(data)
                if passed >= cut:
                    return

        def run(carry):
            try:
                carry()
            except OSError:
                pass
            for end in (near, far):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()

        threading.Thread(target=run, args=(there,), daemon=True).start()
        run(back)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


class Generations(unittest.TestCase):
    def test_a_picture_comes_in_base64(self):
        answer = client().images.generate(prompt=unique(), size="64x64", model="gpt-image-1")
        self.assertEqual(len(answer.data), 1)
        self.assertEqual(extent(decoded(answer.data[0])), (64, 64))
        self.assertEqual((answer.size, answer.output_format), ("64x64", "png"))
        self.assertEqual((answer.quality, answer.background), ("medium", "opaque"))
        self.assertLess(abs(answer.created - time.time()), 3600)
        self.assertEqual(answer.usage.total_tokens, 0)
        self.assertTrue(answer._request_id.startswith("req_"))
        self.assertIsNone(answer.data[0].url)

    def test_a_picture_comes_as_a_link_that_needs_no_key(self):
        answer = client().images.generate(
            prompt=unique(), size="64x64", response_format="url", model="dall-e-3"
        )
        self.assertIsNone(answer.data[0].b64_json)
        self.assertEqual(extent(fetch(answer.data[0].url, base="", key=False)), (64, 64))

    def test_three_pictures_have_three_seeds_in_a_row(self):
        answer = client().images.generate(
            prompt=unique(), n=3, size="64x64", extra_body={"seed": 41}
        )
        self.assertEqual([image.seed for image in answer.data], [41, 42, 43])
        self.assertEqual(len({image.b64_json for image in answer.data}), 3)

    def test_the_same_seed_gives_the_same_bytes(self):
        prompt = unique()

        def make(seed):
            answer = client().images.generate(
                prompt=prompt, size="64x64", extra_body={"seed": seed}
            )
            return answer.data[0]

        first = make(7)
        self.assertEqual(make(7).b64_json, first.b64_json)
        self.assertEqual(make(str(first.seed)).b64_json, first.b64_json)
        self.assertNotEqual(make(8).b64_json, first.b64_json)
        self.assertEqual(len(jobs(prompt)), 4)

    def test_the_size_is_what_was_asked_for(self):
        for size in ["64x64", "256x256", "1024x1024", "512x512", "1536x1024", "auto"]:
            answer = client().images.generate(prompt=unique(), size=size)
            expected = "1024x1024" if size == "auto" else size
            self.assertEqual(answer.size, expected)
            self.assertEqual("%dx%d" % extent(decoded(answer.data[0])), expected)

    def test_the_format_is_what_was_asked_for(self):
        for name in ["png", "jpeg", "webp"]:
            answer = client().images.generate(
                prompt=unique(), size="64x64", output_format=name, output_compression=60
            )
            self.assertTrue(decoded(answer.data[0]).startswith(MAGIC[name]), name)
            self.assertEqual(answer.output_format, name)

    def test_quality_is_a_number_of_steps_and_all_settings_reach_the_job(self):
        def steps(prompt):
            (job,) = jobs(prompt)
            job = json.loads(fetch(f"/api/v1/jobs/{job['id']}"))
            return [stage["steps"] for stage in job["settings"]], job

        found = {}
        for quality in ["low", "medium", "high", "hd", "standard", "auto"]:
            prompt = unique()
            client().images.generate(prompt=prompt, size="256x256", quality=quality)
            found[quality], _ = steps(prompt)
        low, usual, high = found["low"], found["medium"], found["high"]
        self.assertTrue(low[0] < usual[0] < high[0], found)
        self.assertEqual((found["hd"], found["standard"], found["auto"]), (high, usual, usual))
        prompt = unique()
        client().images.generate(
            prompt=prompt,
            size="64x64",
            user="user-7",
            background="opaque",
            moderation="low",
            style="vivid",
            extra_body={"steps": 3, "guidance": 2.5, "negative_prompt": "rain", "seed": 0},
        )
        of_job, job = steps(prompt)
        self.assertEqual(of_job, [3])
        self.assertEqual(job["settings"][0]["guidance_scale"], 2.5)
        self.assertEqual(job["labels"]["openai.user"], "user-7")
        self.assertEqual((job["priority"], job["seed"]), ("interactive", 0))

    def test_a_stream_has_previews_and_then_the_picture(self):
        for partials in range(4):
            events = list(
                client().images.generate(
                    prompt=unique(), stream=True, partial_images=partials, extra_body={"seed": 5}
                )
            )
            kinds = [event.type for event in events]
            previews = min(partials, 2)
            self.assertEqual(
                kinds,
                ["image_generation.partial_image"] * previews + ["image_generation.completed"],
            )
            indices = [event.partial_image_index for event in events[:-1]]
            self.assertEqual(indices, list(range(previews)))
            sizes = [extent(decoded(event)) for event in events]
            self.assertEqual(sizes, [(64, 64), (256, 256)][:previews] + [(1024, 1024)])
            self.assertEqual(events[-1].usage.total_tokens, 0)
            self.assertEqual((events[-1].size, events[-1].seed), ("1024x1024", 5))


class Edits(unittest.TestCase):
    def edit(self, **options):
        prompt = options.pop("prompt", unique())
        answer = client().images.edit(prompt=prompt, size="64x64", **options)
        self.assertEqual(extent(decoded(answer.data[0])), (64, 64))
        (job,) = jobs(prompt)
        (image,) = json.loads(fetch(f"/api/v1/jobs/{job['id']}/images"))["images"]
        return image["image"], image.get("mask", "")

    def upload(self, picture):
        headers = {"Content-Type": "image/png"}
        if KEY != "open":
            headers["Authorization"] = f"Bearer {KEY}"
        upload = urllib.request.Request(f"{URL}/api/v1/inputs", data=picture, headers=headers)
        with urllib.request.urlopen(upload) as answer:
            return json.load(answer)["canonical_sha256"]

    def test_a_picture_is_edited(self):
        picture = self.upload(PICTURE)
        self.assertEqual(self.edit(image=PICTURE), (picture, ""))
        self.assertEqual(self.edit(image=("a.png", PICTURE, "image/png")), (picture, ""))

    def test_the_transparent_part_of_a_mask_is_painted_anew(self):
        strokes = png(96, 96, lambda x, y: (255,) * 3 if x < 48 else (0,) * 3, alpha=False)
        expected = (self.upload(PICTURE), self.upload(strokes))
        self.assertEqual(self.edit(image=PICTURE, mask=MASK, input_fidelity="high"), expected)

    def test_a_list_of_one_picture_is_edited(self):
        self.assertEqual(self.edit(image=[PICTURE]), (self.upload(PICTURE), ""))

    def test_an_edit_streams(self):
        events = list(
            client().images.edit(
                prompt=unique(), image=PICTURE, mask=MASK, stream=True, partial_images=1
            )
        )
        self.assertEqual(
            [event.type for event in events],
            ["image_edit.partial_image", "image_edit.completed"],
        )

    def test_a_picture_is_named_by_the_hash_of_an_upload(self):
        sha256 = self.upload(PICTURE)
        answer = client().post(
            "/images/edits",
            cast_to=openai.types.ImagesResponse,
            body={"image": sha256, "prompt": unique(), "size": "64x64"},
        )
        self.assertEqual(extent(decoded(answer.data[0])), (64, 64))

    def refused(self, field, part, **options):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().images.edit(prompt=unique(), size="64x64", **options)
        self.assertEqual(caught.exception.param, field)
        self.assertIn(part, caught.exception.message)

    def test_what_cannot_be_edited_is_refused(self):
        opaque = png(96, 96, lambda x, y: (0, 0, 0, 255))
        small = png(8, 8, lambda x, y: (0, 0, 0, 0))
        self.refused("image", "more than once", image=[PICTURE, PICTURE])
        self.refused("mask", "no pixel with alpha 0", image=PICTURE, mask=opaque)
        self.refused("mask", "no alpha channel", image=PICTURE, mask=PICTURE)
        self.refused("mask", "8x8", image=PICTURE, mask=small)
        self.refused("image", "image", image=b"no picture at all")
        for name in ["/etc/passwd", "https://example.com/a.png"]:
            with self.assertRaises(openai.BadRequestError) as caught:
                client().post(
                    "/images/edits",
                    cast_to=openai.types.ImagesResponse,
                    body={"image": name, "prompt": "a"},
                )
            self.assertEqual(caught.exception.param, "image")


class Models(unittest.TestCase):
    def test_the_models_are_the_cascades_and_their_aliases(self):
        models = {model.id: model for model in client().models.list()}
        self.assertLessEqual({"demo", "gpt-image-1", "dall-e-3"}, set(models))
        self.assertTrue(all(model.object == "model" for model in models.values()))
        model = client().models.retrieve("gpt-image-1")
        self.assertEqual((model.id, model.cascade), ("gpt-image-1", models["gpt-image-1"].cascade))
        self.assertEqual(client().models.retrieve(model.digest).digest, model.digest)

    def test_an_unknown_model_is_not_found_and_ours_are_listed(self):
        for ask in [
            lambda: client().images.generate(prompt="a", model="dall-e-2"),
            lambda: client().models.retrieve("dall-e-2"),
        ]:
            with self.assertRaises(openai.NotFoundError) as caught:
                ask()
            error = caught.exception
            self.assertEqual((error.code, error.param), ("model_not_found", "model"))
            self.assertIn('model is "dall-e-2"; accepted: ', error.message)
            self.assertIn("gpt-image-1", error.message)


class Errors(unittest.TestCase):
    def refused(self, param, **options):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().images.generate(**{"prompt": unique(), **options})
        error = caught.exception
        self.assertEqual(error.param, param, error.message)
        self.assertEqual(error.type, "invalid_request_error")
        self.assertTrue(error.request_id.startswith("req_"))
        self.assertEqual(error.response.headers["x-should-retry"], "false")
        return error.message

    def test_a_wrong_parameter_is_named(self):
        self.refused("n", n=11)
        self.refused("n", n=2, stream=True)
        self.refused("size", size="1024")
        self.refused("size", size="100x100")
        self.refused("size", size="8x8")
        self.refused("background", background="transparent")
        self.refused("partial_images", partial_images=4, stream=True)
        self.refused("output_format", output_format="gif")
        self.refused("prompt", prompt="")
        self.refused("prompt", prompt="x" * 5000)
        self.refused("steps", extra_body={"steps": 5000})
        message = self.refused("colour", extra_body={"colour": "red"})
        self.assertIn("colour is not a parameter of this route", message)

    def test_a_part_of_a_form_without_headers_is_told(self):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        if KEY != "open":
            headers["Authorization"] = f"Bearer {KEY}"
        form = b"--b\r\n\r\na red circle\r\n--b--\r\n"
        ask = urllib.request.Request(f"{URL}/v1/images/edits", data=form, headers=headers)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(ask)
        with caught.exception as answer:
            error = json.load(answer)["error"]
        self.assertEqual((answer.status, error["code"]), (400, "invalid_form"))
        self.assertIn("a part has no headers", error["message"])

    @unittest.skipIf(KEY == "open", "the farm is open")
    def test_a_wrong_key_is_an_authentication_error(self):
        for key in ["sk-nonsense", "dk_0123456789ab_" + "x" * 43]:
            with self.assertRaises(openai.AuthenticationError) as caught:
                client(api_key=key).images.generate(prompt="a")
            self.assertEqual(caught.exception.code, "invalid_api_key")
            self.assertTrue(caught.exception.request_id)

    def test_a_route_that_does_not_exist_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client().post("/images/dreams", cast_to=object, body={})
        self.assertEqual(caught.exception.code, "no_such_route")


class Retries(unittest.TestCase):
    def check(self, cuts, ask):
        prompt = unique()
        with Cut(cuts) as proxy:
            answer = ask(client(proxy.url, max_retries=2), prompt)
            retries = [data for data in proxy.requests if b"x-stainless-retry-count: 1" in data.lower()]
        self.assertTrue(retries, "the client did not repeat the request")
        self.assertEqual(len(jobs(prompt)), 1)
        self.assertEqual(jobs(prompt)[0]["state"], "done")
        return answer

    def test_a_retry_finds_the_first_job_wherever_the_answer_was_cut(self):
        for cut in [0, 1, 2000, -1]:
            with self.subTest(cut=cut):
                answer = self.check(
                    [cut], lambda of, prompt: of.images.generate(prompt=prompt, size="256x256")
                )
                self.assertEqual(extent(decoded(answer.data[0])), (256, 256))

    def test_a_second_retry_finds_it_too(self):
        self.check([0, 0], lambda of, prompt: of.images.generate(prompt=prompt, size="64x64"))

    def test_a_retry_of_a_form_finds_it_although_its_boundary_is_new(self):
        self.check(
            [0],
            lambda of, prompt: of.images.edit(
                prompt=prompt, image=PICTURE, mask=MASK, size="64x64"
            ),
        )

    def test_a_retry_whose_job_was_deleted_is_a_new_job(self):
        prompt = unique()
        first = client().images.generate(prompt=prompt, size="64x64")
        headers = {"Authorization": f"Bearer {KEY}"} if KEY != "open" else {}
        delete = urllib.request.Request(
            f"{URL}/api/v1/jobs/{first.job}", headers=headers, method="DELETE"
        )
        urllib.request.urlopen(delete).close()
        again = client().images.generate(
            prompt=prompt, size="64x64", extra_headers={"x-stainless-retry-count": "1"}
        )
        self.assertNotEqual(again.job, first.job)
        self.assertEqual([job["id"] for job in jobs(prompt)], [again.job])

    def test_the_same_request_without_a_retry_is_a_new_job(self):
        prompt = unique()
        for _ in range(2):
            client().images.generate(prompt=prompt, size="64x64")
        self.assertEqual(len(jobs(prompt)), 2)


@unittest.skipUnless(SLOW, "a step takes three seconds for it; DARKROOM_SLOW=1 runs it")
class Patience(unittest.TestCase):
    def test_a_client_that_timed_out_finds_its_job_again(self):
        prompt = unique()
        answer = client(timeout=4, max_retries=2).images.generate(
            prompt=prompt, size="64x64", extra_body={"steps": 3}
        )
        self.assertEqual(extent(decoded(answer.data[0])), (64, 64))
        self.assertEqual([job["state"] for job in jobs(prompt)], ["done"])

    def test_the_work_of_a_client_that_left_is_cancelled_after_a_minute(self):
        prompt = unique()
        with self.assertRaises(openai.APITimeoutError):
            client(timeout=2, max_retries=0).images.generate(prompt=prompt, quality="high")
        self.assertEqual([job["state"] for job in jobs(prompt)], ["active"])
        time.sleep(50)
        self.assertEqual(jobs(prompt)[0]["state"], "active", "a retry may still come")
        time.sleep(20)
        self.assertEqual(jobs(prompt)[0]["state"], "cancelled")


if __name__ == "__main__":
    unittest.main()
