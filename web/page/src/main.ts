import { mount } from 'svelte';
import App from './App.svelte';
import { forgetCaller } from './lib/caller';
import { clock } from './lib/clock.svelte';
import { router } from './lib/router.svelte';
import { session } from './lib/session.svelte';
import { theme } from './lib/theme.svelte';
import './styles/tokens.css';
import './styles/base.css';
import './styles/forms.css';

theme.start();
// The key in the address has to be gone from it before anything else reads or keeps the address.
void session.start(forgetCaller);
router.start();
clock.start();
mount(App, { target: document.getElementById('app')! });
