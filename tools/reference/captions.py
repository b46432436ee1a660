"""Writes the table of cleaned captions that `core/src/caption/tests.rs` reads, by running the
reference.

    pip install diffusers==0.42.1 beautifulsoup4==4.15.0 ftfy==6.3.1   # also torch, transformers
    python tools/reference/captions.py core/src/caption/cases.json

The reference is `IFPipeline._clean_caption`, called twice as `_text_preprocessing` does. A case's
`ours` in an existing table, the stated difference of Darkroom's own, is kept.
"""

import json
import sys
from pathlib import Path

from diffusers import IFPipeline

CASES = [
    # Plain.
    "a photo of a red panda",
    "A Photo of a RED Panda.",
    "   leading and trailing   ",
    "",
    "a",
    "ÀÉÎ Ärger STRASSE ΣΑΣ ǅ",
    "İstanbul at dusk",
    "a painting, by someone: oil on canvas; 1887",
    "\"a quoted caption\"",
    "'single quoted'",
    "\"\"\"AUSVERKAUFT\"\"\"",
    "***AUSVERKAUFT***, #AUSVERKAUFT",
    "don't stop; it's fine",
    "-dash in front", "dash behind-", "_under_", ":colon", ";semicolon", ",comma,", "+plus+", ".hidden", ".two words",
    # Percent and plus.
    "a+cat+on+a+mat", "100%25 sure", "caf%C3%A9", "bad %C3 byte", "%zz %4", "%E2%80%9Cquoted%E2%80%9D", "é%C3é", "a%00b", "%1c a %1f", "100% cotton",
    # Persons, links, nicknames.
    "portrait of <person> smiling", "two <PERSON> faces",
    "see https://example.com/a/b?c=d now", "http:example", "HTTPS:///x y", "www.example.com is a site", "www:/x a", "www://example.org/a",
    "go to example.net/path-a/b_c today", "mail me@example.com please", "example.com@home", "a.b.c.org", "visit foo.co.uk now",
    "it is so.it was", "no.community here", "sub-domain.example.gov/", "https:", "https:// x", "x https://a", "(http://a.b)",
    "photo by @some_one on a wall", "@a@b", "me @ home", "@ünïcode rocks", "a@", "@名前 x",
    # Markup.
    "<b>bold</b> and <i>italic</i>", "a<br>b", "a<br/>b<br />c", "<p>one</p>\n<p>two</p>", "x <!-- comment --> y", "x <!-- open", "x <!doctype html> y",
    "<script>var a = 1;</script>visible", "<style>p {}</style>text", "<script>never closed", "<template>hidden <b>too</b></template>shown",
    "<ruby>base<rt>top</rt><rp>(</rp></ruby>", "a < b and c > d", "1<2", "<3 love", "i <3 you", "a <", "a </", "</>x", "</ b>x", "</b>x", "<a href=\"x\">link</a>",
    "<a href='x>y'>link</a>", "<a href=x title = \"y\" disabled>link</a>", "<a href=\"x>never closed", "<img src=a.png alt='b'>after", "<A HREF=X>caps</A>",
    "<a<b>c", "<?php echo 1 ?>text", "<? open", "<![cdata[data]]> after", "a <![if x]> b", "</script>x", "<b/>self", "<foo bar>baz</foo qux>", "<a b'c>d", "<a =b>c",
    "text <unclosed", "text <unclosed attr", "<a/b/c>d", "<title>t</title>body", "<div>  </div>x", "<b>a</b> <i>b</i>", "a<b> \n </b>c", "&<b>x</b>", "<b>&</b>",
    # Entities.
    "fish &amp; chips", "fish &amp chips", "AT&T", "R&B music", "&quot;quoted&quot;", "&quot x", "5 &lt; 6", "&lt;b&gt;bold&lt;/b&gt;", "&eacute;t&eacute;", "&EACUTE;T&EACUTE;",
    "&#233;t&#xe9;", "&#8220;curly&#8221;", "&#150; dash", "&#x80; euro", "&#0; null", "&#xD800; half", "&#1114112; over", "&#12a; x", "&#; x", "&#x; x", "&# x", "&#65", "&#65 x", "&", "a &", "a & b",
    "&x", "a &x", "&xy", "&nbsp;x&nbsp;", "&copy; 2020", "&copy 2020", "&notit;", "&not;it", "&hellip;", "&frac12; cup", "&unknown; thing", "&a-b; c", "&amp;amp; twice",
    "&amp;lt;b&amp;gt;", "&amp;#233;", "&semi; x", "&lbrace;x&rbrace;", "&NotEqualTilde;", "&fjlig;ord", "&a.", "&a-", "x&lt", "&ltx",
    # CJK, dashes, quotes.
    "漢字 and kana かな カナ", "㌀㈱㊗", "䷀ hexagram", "𠀀 beyond the plane", "cat—dog–bird‒fish", "a‐b‑c", "〜wave〰", "－fullwidth－", "⸺⸻", "`tick` ´acute´ «guille» “curly” „low” ‚single’ ‘q’", "¨x¨", "〝x〞", "‛x‟",
    # Numbers of all kinds.
    "server at 192.168.0.1 today", "1.2.3.4.5", "1234.5.6.7", "at 8:45 ", "at 8:45", "8:45 pm", "score 2:10   ", "line\\nbreak", "real\nbreak\r\nand\ttab",
    "#1 song", "#12 #123 #1234 #12345 #123456", "#12ab", "123456", "12345", "1234567 and 999999x", "٣٤٥٦٧٨ arabic", "٣:٤٥ ", "12²³ x", "½ 3½",
    "file.png", "a picture.JPG of b", "see my-file.tar.pdf here", ".png", "x.mp4y", "日本.png x", "two words.webp",
    "\"\"double\"\"", "it''s", "\"'mixed'\"", "wait... what", "end..", "a . b", " . ", "a .b", ". a",
    "#®•©™&@·º½¾¿¡§~)(][}{|\\/*", "a (b) [c] {d} | e \\ f / g * h", "either/or", "w/o", "~approx~", "50º", "¿qué? ¡sí!",
    "this-is-my-cute-cat", "this_is_my_cute_cat", "one-two-three", "a-b-c-d", "a-b-c-d-e", "a_b-c_d-e",
    # Wrong decodings and compatibility forms.
    "ﬁne ﬂour eﬀect ﬃ ﬄ ﬆ ﬅ", "ĳs ŉ ǆ ǉ ǌ ǳ", "ＬＯＵＤ　ＮＯＩＳＥＳ", "ｶﾀｶﾅ ﾊﾟ", "＆lt；b＆gt；", "＜b＞x＜/b＞", "＆amp；", "！？＂＇", "e\u0301 cafe\u0301", "ñ ñ",
    "zero\u200bwidth\u200djoin", "soft\u00adhyphen", "bom\ufeffmark", "\ufeffstart", "rtl\u200fmark", "obj\ufffcect", "line\u2028sep\u2029par", "nbsp\u00a0here", "thin\u2009space", "ideo\u3000graphic",
    "\u02bcmodifier\u02bc", "it\u2019s", "\u201chello\u201d", "â€œquoteâ€\u009d", "donâ€™t", "itâ€™s a catâ€™s tail", "the catâ€™ s", "três â€ x", "maçã… e pão", "là¢ x", "amanhã» ele", "ãƒ x", "ãƒ†ã‚¹ãƒˆ", "â… x", "já€ x", "dash â€” here", "dash â€“ here", "waitâ€¦", "âœ” check", "â‚¬5", "Ã©tÃ©", "cafÃ©", "Â£5", "Â©", "ðŸ˜€ grin", "Ã¼ber", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ã\x81\x82", "naÃ¯ve", "voilÃ le travail",
    "\x85next", "c1 \x93quoted\x94", "%C2%93x%C2%94", "\x1b[31mred\x1b[0m", "%1b[31mred", "del\x7fete",
    # Article numbers and shop talk.
    "jc6640", "jc6640vc", "6640vc231", "abcd1234", "abc12", "j2d1a2a", "a1b2", "1a2b3c", "mp3 player", "model x100", "r2d2 and c3po", "b2b", "4k tv", "h264 video", "3d render", "2x4", "2x", "10.5x20", "10 x 20", "4х4", "3×5 cm", "1920x1080 wallpaper", "12.x13",
    "free shipping worldwide", "worldwide free shipping", "worldwide shipping", "shipping", "freeshipping", "free  shipping", "free download", "download free", "free download free", "downloads", "click for more", "click on image", "click here", "double-click on x",
    "png image", "jpg images", "jpeg imagess", "a pdf", "mp4", "mp45", "apk image file", "page 12", "page  3 of 4", "pages 12", "homepage 12",
    "a : b", "a :b", "a: b", "title : subtitle", "3 : 4", ", : ;",
    "one,two", "one, two", "3,000", "3.14", "a.b", "end.", "x,1", "1,x", "dr.who", "u.s.a.", "e.g. this", "hello,world.foo", "a,.b", "ok.\"x\"",
    "tab\tand   spaces", "\"x\" y \"z\"", "'a", "a'", "\"", "''", "--", "a--b", "---", "- -", "...", ".", "..a", ".a", ".a b", "!", "?!", ":)", ";-)", "<3", "</3", "a:b",
    # Emoji, other scripts, marks.
    "🐶 dog 🐕‍🦺", "👨‍👩‍👧 family", "naïve façade", "Привет МИР", "שלום עולם", "مرحبا بالعالم", "हिन्दी पाठ", "ไทย", "한국어 그림", "ｈａｌｆ　ｗｉｄｔｈ", "Ǆ ǅ", "ß ẞ", "ﷺ", "①②③", "Ⅷ", "x² + y²", "H₂O", "a⁄b", "℃ ℉", "™ © ®",
    "x" * 300, "a-" * 50, "a." * 60, "1 " * 50, "<" * 40, "&" * 40, "\"" * 40, "(" * 40,
    # As people write prompts.
    "A majestic lion jumping from a big stone at night, 4k, highly detailed, trending on artstation",
    "ultra close-up color photo portrait of rainbow owl with deer horns in the woods",
    "photo of a kangaroo wearing an orange hoodie and blue sunglasses standing in front of the eiffel tower holding a sign that says \"very deep learning\"",
    "Buy now!! Best PRICE $19.99 - Free Shipping Worldwide - https://shop.example.com/item/12345678?ref=abc #sale #1",
    "IMG_20190312_142530.jpg", "Stock Photo ID: 123456789 | Copyright: John Doe", "Vintage 1960's T-shirt (size XL) — 100% cotton & made in U.S.A.",
    "Woman's hand holding smart-phone with blank screen isolated on white-background", "Figure 3: results (see page 12)", "Download Free PNG Image | 1024x768",
    "&quot;The Starry Night&quot; by Vincent van Gogh (1889)", "<p>Hello <strong>World</strong>!</p>", "10 Best Beaches in Spain... Click Here For More", "Nikon D3500 DSLR w/ 18-55mm VR",
    "2 bed, 1 bath @ 12 Main St. / $1,200/mo", "\u201cI\u2019m fine\u201d \u2014 she said\u2026", "sunset over the ocean \U0001F305", "painting of a man   with    hat", "Crème brûlée & café au lait", "O'Neill's \"Pub\"", "C++ and C# code", "email: john.doe@example.com", "#throwback #2019 memories",
]


def main(path):
    path = Path(path)
    stated = {}
    if path.exists():
        stated = {case["text"]: case["ours"] for case in json.loads(path.read_text())["cases"] if case.get("ours") is not None}
    pipeline = IFPipeline.__new__(IFPipeline)
    cases = []
    for text in dict.fromkeys(CASES):
        try:
            clean = pipeline._clean_caption(pipeline._clean_caption(text))
        except Exception as error:  # noqa: BLE001 a case that the reference cannot clean is no case
            print(f"left out {text!r}: {error}", file=sys.stderr)
            continue
        case = {"text": text, "clean": clean}
        if text in stated and stated[text] != clean:
            case["ours"] = stated[text]
        cases.append(case)
    path.write_text(json.dumps({"cases": cases}, ensure_ascii=True, indent=0) + "\n")
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main(sys.argv[1])
