// The time now, for "3 min ago". It moves once a second while the page is seen.

class Clock {
  now = $state(Date.now() / 1000);

  start(): void {
    setInterval(() => {
      if (!document.hidden) this.now = Date.now() / 1000;
    }, 1000);
  }
}

export const clock = new Clock();
