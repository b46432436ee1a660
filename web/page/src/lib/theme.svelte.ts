// Dark or light: what the reader chose, or else what the system prefers.

type Choice = 'system' | 'dark' | 'light';
const STORED = 'darkroom-theme';

function stored(): Choice {
  try {
    const value = localStorage.getItem(STORED);
    return value === 'dark' || value === 'light' ? value : 'system';
  } catch {
    // Storage may be turned off.
    return 'system';
  }
}

class Theme {
  choice = $state<Choice>(stored());
  #light = matchMedia('(prefers-color-scheme: light)');
  #systemLight = $state(this.#light.matches);

  /** What shows now. */
  get shown(): 'dark' | 'light' {
    if (this.choice !== 'system') return this.choice;
    return this.#systemLight ? 'light' : 'dark';
  }

  start(): void {
    this.#light.addEventListener('change', (event) => {
      this.#systemLight = event.matches;
    });
    this.#apply();
  }

  toggle(): void {
    this.choice = this.shown === 'dark' ? 'light' : 'dark';
    try {
      localStorage.setItem(STORED, this.choice);
    } catch {
      // Then it holds until the page is closed.
    }
    this.#apply();
  }

  #apply(): void {
    if (this.choice === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.choice;
  }
}

export const theme = new Theme();

/** Whether the reader asked for less movement. */
export function reducedMotion(): boolean {
  return matchMedia('(prefers-reduced-motion: reduce)').matches;
}
