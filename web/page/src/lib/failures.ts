// What each failure code means, and what helps.

interface Advice {
  title: string;
  advice: string;
  /** Whether running the same again can succeed. */
  retry: 'helps' | 'after' | 'seldom';
}

const ADVICE: Record<string, Advice> = {
  non_finite: {
    title: 'The numbers overflowed',
    advice: 'The network gave values that are not finite. The same settings will do it again: lower the guidance weight, change the sampler or its thresholding, or use another dtype on the worker.',
    retry: 'seldom',
  },
  out_of_memory: {
    title: 'The device has too little memory',
    advice: 'Even one image alone did not fit. Use a smaller size, or retry once a worker with more memory serves this stage.',
    retry: 'after',
  },
  panic: {
    title: 'A worker hit a bug',
    advice: 'The worker\'s own code failed and said so. A retry may run elsewhere. Please report the message below.',
    retry: 'helps',
  },
  torch: {
    title: 'libtorch returned an error',
    advice: 'Often a device or driver that is in a bad state. Look whether one worker fails again and again, drain it, and retry.',
    retry: 'after',
  },
  internal: {
    title: 'A check inside the farm failed',
    advice: 'This is a fault of Darkroom. Please report the message below; a retry may succeed.',
    retry: 'helps',
  },
  encoding: {
    title: 'The picture could not be written as a file',
    advice: 'Another output format or a smaller size may work. Please report the message if PNG fails.',
    retry: 'seldom',
  },
  wrong_task: {
    title: 'A worker got a task of another kind',
    advice: 'Workers and coordinators may be of different versions. Bring them to one version, then retry.',
    retry: 'after',
  },
  input_lost: {
    title: 'A picture to start from is gone',
    advice: 'Only its owner can send it again. Upload the same picture once more, then retry.',
    retry: 'after',
  },
  invalid_input: {
    title: 'An input cannot be used',
    advice: 'The message says what is wrong with it. Correct the picture or the prompt and submit it again.',
    retry: 'seldom',
  },
  storage: {
    title: 'Storage could not be used',
    advice: 'Check that the bucket or folder can be reached and has room. Retry when it is back.',
    retry: 'after',
  },
  worker_died: {
    title: 'The worker died while it ran this image alone',
    advice: 'The image may kill workers: too little memory, or a crash in the driver. Look at the log of the worker before you retry.',
    retry: 'after',
  },
  host_died: {
    title: 'A host died with its workers',
    advice: 'The images are not to blame. Retry when the host or another one is up.',
    retry: 'helps',
  },
  interrupted: {
    title: 'Workers were interrupted too often',
    advice: 'They were stopped before they could finish. Give them more time to drain, then retry.',
    retry: 'helps',
  },
};

const UNKNOWN: Omit<Advice, 'title'> = {
  advice: 'This code is new to the page. The message below says what happened.',
  retry: 'helps',
};

export function adviceFor(code: string): Advice {
  return ADVICE[code] ?? { title: code === '' ? 'Failed without a code' : code, ...UNKNOWN };
}

export const RETRY_WORDS: Record<Advice['retry'], string> = {
  helps: 'A retry often helps.',
  after: 'A retry helps once the cause is gone.',
  seldom: 'A retry alone seldom helps.',
};
