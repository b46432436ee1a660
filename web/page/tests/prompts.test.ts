import { describe, expect, it } from 'vitest';
import { USUAL, type Options } from '../src/lib/prompts/options';
import { readPrompts } from '../src/lib/prompts/read';

const read = (name: string, text: string, options: Partial<Options> = {}) => readPrompts(name, text, { ...USUAL, ...options });
const texts = (name: string, text: string, options: Partial<Options> = {}) => read(name, text, options).prompts.map((prompt) => prompt.text);
const refusal = (name: string, text: string, options: Partial<Options> = {}): string => {
  try {
    read(name, text, options);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('it was read');
};

describe('plain text', () => {
  it('has a prompt on each line that is not blank', () => {
    expect(texts('a.txt', '\uFEFFa cat\r\n\r\n  \na dog\rtwo')).toEqual(['a cat', 'a dog', 'two']);
    expect(read('a.txt', 'a cat\n\na dog\n').prompts.map((prompt) => prompt.line)).toEqual([1, 3]);
  });
  it('is never JSON, a header or another document', () => {
    expect(refusal('a.txt', '{"prompt": "a"}\n')).toContain('line 1: the file is named .txt, but this line is a JSON object');
    expect(refusal('a.txt', 'id,prompt\n1,a cat\n')).toContain("a table's header");
    expect(refusal('a.txt', 'a cat\n["b"]\n')).toContain('line 2: the line is JSON');
    expect(refusal('a.txt', "a cat\n{'prompt': 'a'}\n")).toContain('Python');
    expect(refusal('a.txt', '<!DOCTYPE html>\n<html>')).toContain('a web page');
    expect(refusal('a.txt', 'a\u2028b')).toContain('U+2028');
    expect(refusal('a.txt', 'a\u0000b')).toContain('control character U+0000');
    expect(refusal('a.txt', ' \n\u200b\n')).toContain('holds no prompts');
  });
  it('may look like a header if no rows follow', () => {
    expect(texts('a.txt', 'cat, text\na dog in a park\na bird')).toEqual(['cat, text', 'a dog in a park', 'a bird']);
  });
  it('is taken as it is when asked for', () => {
    expect(texts('a.csv', 'id,prompt\n{"a": 1}', { format: 'text' })).toEqual(['id,prompt', '{"a": 1}']);
  });
  it('skips comments when asked to, and else says so', () => {
    expect(texts('a.txt', '# one\na cat', { comments: true })).toEqual(['a cat']);
    expect(read('a.txt', '# one\n# two\na cat').notes).toEqual(['line 1 and 1 other begin with # ("# one"); such lines are prompts unless comments are skipped']);
    expect(read('a.txt', 'a cat --ar 16:9').notes[0]).toContain("another tool's options (\"--ar\")");
  });
});

describe('JSON lines', () => {
  it('have the fields of a prompt', () => {
    const line = '{"prompt": "a", "negative": "", "images": 3, "seed": 18446744073709551615, "style": null, "custom_id": "x", "labels": {"k": "v", "n": 1.50, "o": {"a": [1, 2]}, "z": null}, "settings": {"size": 256}}';
    expect(read('a.jsonl', `${line}\n"b"`).prompts).toEqual([
      { text: 'a', line: 1, negative: '', images: 3, seed: '18446744073709551615', custom_id: 'x', labels: { k: 'v', n: '1.50', o: '{"a":[1,2]}' }, settings: { size: 256 } },
      { text: 'b', line: 2 },
    ]);
  });
  it('refuse numbers in other forms', () => {
    for (const number of ['"3"', '1.0', '1e3', 'true', '-1']) {
      expect(refusal('a.jsonl', `{"prompt": "a", "images": ${number}}`), number).toContain('line 1: images is');
    }
    expect(refusal('a.jsonl', '{"prompt": "a", "seed": 18446744073709551616}')).toContain('seed is 18446744073709551616');
  });
  it('refuse unknown keys, keys that occur twice, and ids that are not unique', () => {
    expect(refusal('a.jsonl', '{"prompt": "a", "foo": 1}')).toContain('the key "foo" is unknown');
    expect(refusal('a.jsonl', '{"prompt": "a", "prompt": "b"}')).toContain('occurs twice');
    expect(refusal('a.jsonl', '{"prompt": "a", "custom_id": "x"}\n{"prompt": "b", "custom_id": "x"}')).toBe('line 2: custom_id is "x", which line 1 already has; accepted: different ids');
    expect(refusal('a.jsonl', '{"negative": "a"}')).toContain('prompt is missing');
  });
  it('keep other keys as labels when asked to', () => {
    expect(read('a.jsonl', '{"prompt": "a", "foo": 1, "__proto__": "x"}', { labels: 'all' }).prompts[0].labels).toEqual(JSON.parse('{"foo": "1", "__proto__": "x"}'));
    expect(read('a.jsonl', '{"prompt": "a", "foo": 1}', { labels: 'none' }).prompts[0]).toEqual({ text: 'a', line: 1 });
    expect(texts('a.jsonl', '{"title": "a"}', { column: 'title' })).toEqual(['a']);
  });
  it('say what the page cannot do', () => {
    expect(refusal('a.jsonl', '{"prompt": "a", "image": "cat.png"}')).toContain('this page cannot open pictures that a file names');
  });
});

describe('COCO captions', () => {
  const caption = (id: number | string, text: string) => `{"image_id": 9, "id": ${id}, "caption": "${text}"}`;
  const file = (...annotations: string[]) => `{"info": {"year": 2014},\n"images": [{"id": 9, "file_name": "a.jpg"}],\n"annotations": [${annotations.join(',\n')}]}`;
  it('become prompts with their ids, whatever the file is called', () => {
    const prompts = [
      { text: 'a cat', line: 3, custom_id: '12', labels: { image_id: '9' } },
      { text: 'a dog', line: 4, custom_id: 'x', labels: { image_id: '9' } },
    ];
    const text = file(caption(12, 'a cat'), caption('"x"', 'a dog'));
    for (const name of ['captions_val2014.json', 'a', 'a.jsonl']) expect(read(name, text).prompts, name).toEqual(prompts);
    expect(read('a.jsonl', text).notes).toEqual(['the file is named .jsonl, but contains COCO captions and is read as such']);
    expect(read('a.json', text, { format: 'json' }).prompts).toEqual(prompts);
    expect(read('a.json', text.replace(/\n/g, ' ')).prompts.length).toBe(2);
    expect(read('a.json', `{"type": "captions", "annotations": [${caption(1, 'a')}], "more": 1}`).notes).toEqual(['line 1: the key "more" is ignored']);
  });
  it('are refused where they are something else', () => {
    expect(refusal('a.txt', file(caption(1, 'a')))).toContain('the beginning of COCO captions');
    expect(refusal('a.json', file('{"image_id": 1, "id": 2, "bbox": [0, 0, 1, 1], "caption": "a"}'))).toContain('line 3: the key "bbox" is unknown; accepted: image_id, id, caption');
    expect(refusal('a.json', file('{"image_id": 1, "id": 2}'))).toContain('not its boxes');
    expect(refusal('a.json', file('{"id": 2, "caption": "a"}'))).toContain('has no `image_id`');
    expect(refusal('a.json', file('{"image_id": 1, "caption": "a"}'))).toContain('has no `id`');
    expect(refusal('a.json', file('"a cat"'))).toContain('the annotation is "a cat"');
    for (const id of ['1.5', 'true', '""', '9223372036854775808']) expect(refusal('a.json', file(caption(id, 'a'))), id).toContain('id is ');
    expect(refusal('a.json', file(caption(1, 'a'), caption(1, 'b')))).toContain('line 4: custom_id is "1", which line 3 already has');
    expect(refusal('a.json', '{"info": {},\n"images": []}')).toContain('without `annotations` (its keys: "images", "info")');
    expect(refusal('a.json', '{\n"annotations": [], "annotations": []}')).toContain('occurs twice');
    expect(refusal('a.json', '{\n"prompts": ["a"]}')).toContain('one JSON object with the key "prompts"');
    expect(refusal('a.json', file())).toContain('holds no prompts');
  });
});

describe('JSON', () => {
  it('is an array of strings and objects', () => {
    expect(read('a.json', '[\n  "a",\n  {"prompt": "b"}\n]').prompts).toEqual([{ text: 'a', line: 2 }, { text: 'b', line: 3 }]);
  });
  it('may be JSON lines under another name, which is said', () => {
    const file = read('a.json', '{"prompt": "a"}\n{"prompt": "b"}');
    expect([file.format, file.notes]).toEqual(['jsonl', ['the file is named .json, but contains JSON lines and is read as such']]);
  });
  it('is refused where it is cut short or goes on', () => {
    expect(refusal('a.json', '["a", "b"')).toContain('the end of the file is not expected here');
    expect(refusal('a.json', '["a"] x')).toContain('nothing after the end');
    expect(refusal('a.json', '["a",]')).toContain('a JSON value');
  });
});

describe('tables', () => {
  it('have a header, quoted cells, fields and labels', () => {
    const text = 'Prompt,negative,images,seed,Category\r\n"a ""big"" cat, sitting",dogs,2,7,Animals\r\n"two\nlines",,,,\r\n';
    expect(read('a.csv', text).prompts).toEqual([
      { text: 'a "big" cat, sitting', line: 2, negative: 'dogs', images: 2, seed: 7, labels: { Category: 'Animals' } },
      { text: 'two\nlines', line: 3 },
    ]);
  });
  it('find their separator', () => {
    expect(texts('a.csv', 'id;prompt\n1;a, b')).toEqual(['a, b']);
    expect(texts('a.tsv', 'id\tprompt\n1\ta; b')).toEqual(['a; b']);
    expect(texts('a.csv', 'sep=|\nid|prompt\n1|a')).toEqual(['a']);
  });
  it('have settings of the prompt', () => {
    expect(read('a.csv', 'prompt,settings.size,settings.output,settings.base.steps,settings.base.timesteps\na,256,jpeg:90,20,\nb,,,,"999, 0"').prompts.map((prompt) => prompt.settings)).toEqual([
      { size: 256, output: { format: 'jpeg', quality: 90 }, stages: [{ stage: 'base', steps: 20 }] },
      { stages: [{ stage: 'base', timesteps: [999, 0] }] },
    ]);
    expect(refusal('a.csv', 'prompt,settings.base.foo\na,1')).toContain('is no setting');
    expect(refusal('a.csv', 'prompt,settings.output\na,gif')).toContain('settings.output is "gif"');
  });
  it('name the line of what is wrong', () => {
    expect(refusal('a.csv', 'prompt,x\na\n')).toContain('line 2: the row has 1 cells; accepted: 2');
    expect(refusal('a.csv', 'prompt,x\na,"b\nc\n')).toContain("line 2: a cell's quote opens here and never closes");
    expect(refusal('a.csv', 'prompt,x\n"a"b,c\n')).toContain("text follows a cell's closing quote");
    expect(refusal('a.csv', 'prompt,x\n "a",c\n')).toContain("a blank stands before a cell's opening quote");
    expect(refusal('a.csv', 'prompt,x\na,b\nprompt,x\n')).toContain('line 3: the row repeats the header');
    expect(refusal('a.csv', 'prompt,images\na,three\n')).toContain('images is "three"');
    expect(refusal('a.csv', 'a,b\n1,2\n')).toContain('no column is plainly the prompt');
    expect(refusal('a.csv', 'prompt,text\n1,2\n')).toContain('may each be the prompt');
    expect(refusal('a.csv', 'prompt,Prompt,x\n1,2,3\n', { column: 'prompt' })).toContain('occurs twice');
    expect(refusal('a.csv', '| prompt | x |\n| --- | --- |\n| a | b |')).toContain('a Markdown table');
  });
  it('say which labels may have been meant as fields', () => {
    expect(read('a.csv', 'prompt,negative_prompt\na,b').notes).toEqual(['line 1: "negative_prompt" is kept as a label; if it is meant for the prompt, call it `negative`']);
  });
  it('take the column that is asked for', () => {
    expect(read('a.csv', 'sku,description\n1,a cat', { column: 'Description' }).prompts).toEqual([{ text: 'a cat', line: 2, labels: { sku: '1' } }]);
    expect(read('a.csv', 'sku,prompt\n1,a cat', { labels: 'none' }).prompts).toEqual([{ text: 'a cat', line: 2 }]);
  });
});

describe('limits', () => {
  it('are those of the farm', () => {
    expect(refusal('a.txt', 'x'.repeat(4097))).toContain('prompt has 4097 characters; accepted: 1 to 4096');
    expect(texts('a.txt', '🦊'.repeat(4096))).toHaveLength(1);
    expect(refusal('a.jsonl', '{"prompt": "a", "images": 10001}')).toContain('images is 10001');
  });
});
