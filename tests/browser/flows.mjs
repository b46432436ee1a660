// The short flows, in one process that shares a browser.
import './flows/sharpen.test.mjs';
import './flows/csv.test.mjs';
import './flows/mask.test.mjs';
import './flows/cancel.test.mjs';
import './flows/bulk.test.mjs';
import './flows/retry.test.mjs';
import './flows/pause.test.mjs';
import './flows/scroll.test.mjs';
import './flows/reload.test.mjs';
import './flows/restart.test.mjs';
import './flows/session.test.mjs';
import './flows/tabs.test.mjs';
import './flows/keyboard.test.mjs';
import './flows/phone.test.mjs';
import './flows/axe.test.mjs';
import './flows/image.test.mjs';
import './flows/hosts.test.mjs';
