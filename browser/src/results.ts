import type {CaptionDocument, ModelFacts} from './types';

/** A row of the table that sets the bundles beside each other. */
export function resultRow(model: ModelFacts, result: CaptionDocument): HTMLTableRowElement {
  const row = document.createElement('tr');
  const head = document.createElement('th');
  head.scope = 'row';
  head.textContent = model.name;
  const steps = result.step_us.reduce((sum, one) => sum + one, 0);
  const cells = [
    result.caption,
    milliseconds(result.decode_us),
    milliseconds(result.encode_us),
    milliseconds(steps),
    String(result.step_us.length),
    milliseconds(result.decode_us + result.encode_us + steps),
    model.bytes.toLocaleString('en'),
  ].map((text) => {
    const cell = document.createElement('td');
    cell.textContent = text;
    return cell;
  });
  row.append(head, ...cells);
  return row;
}

function milliseconds(us: number): string {
  return (us / 1000).toFixed(1);
}
