// Names of columns and keys: those that hold prompts, fields of a prompt, and look-alikes.

export const FIELDS = ['negative', 'images', 'seed', 'style', 'image', 'mask', 'custom_id'] as const;
export type Field = (typeof FIELDS)[number];

const PROMPT_COLUMNS = new Set(['prompt', 'prompts', 'caption', 'captions', 'text']);

/** Names that are fields in other tools, but labels here. */
const LIKE_FIELDS: Record<string, Field> = {
  negative_prompt: 'negative',
  'negative prompt': 'negative',
  negativeprompt: 'negative',
  neg_prompt: 'negative',
  num_images: 'images',
  n: 'images',
  init_image: 'image',
  image_path: 'image',
  input_image: 'image',
  mask_image: 'mask',
  mask_path: 'mask',
  id: 'custom_id',
};

export const SETTING_KEYS = ['sampler', 'steps', 'preset', 'timesteps', 'spacing', 'eta', 'guidance_scale', 'guidance_schedule', 'thresholding', 'noise_level', 'strength', 'cache_interval'] as const;

export function plainName(name: string): string {
  return name.trim().replace(/^"+|"+$/g, '').trim().toLowerCase();
}

export function isPromptColumn(name: string): boolean {
  return PROMPT_COLUMNS.has(plainName(name));
}

/** The field that a label may have been meant as. */
export function likeField(name: string): Field | null {
  const lower = name.toLowerCase();
  return Object.hasOwn(LIKE_FIELDS, lower) ? LIKE_FIELDS[lower] : null;
}

export function isField(name: string): name is Field {
  return (FIELDS as readonly string[]).includes(name);
}

/** The first of several names that occurs twice. */
export function twice(names: readonly string[]): string | null {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) return name;
    seen.add(name);
  }
  return null;
}
